"""The mechanisms, one file each: formula with its source, public function and slow float64 reference."""
