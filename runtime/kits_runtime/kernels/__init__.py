"""Our own kernels for NVIDIA GPUs: their sources, how they are launched, and what they compute.

``*.cu`` are the sources, ``calls`` the functions that the device path calls, ``twins`` the same
from the same arguments with numpy.
"""
