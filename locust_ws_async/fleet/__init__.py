"""What master and workers know together.

generator   how late each process is, and whether its times are partly its own
"""
