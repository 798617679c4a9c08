"""The mechanisms, one file each: formula with its source, public function and slow float64 reference.

The references are plain NumPy, O(n^2), and the law that all kernels are held to:
`softmax.reference_attention`, `gravitational.reference_gravitational_attention`,
`residual_linear.reference_residual_linear_attention` and `rattention.reference_rattention`.
`table.MECHANISMS`, which is ``rattention.MECHANISMS``, has each of them in the row of its mechanism.
"""
