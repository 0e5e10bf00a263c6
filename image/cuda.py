"""Has TensorFlow open NVIDIA's libraries in the GPU image, and fails where it does not find one. It needs no GPU.

container=$(buildah from localhost/evergreen:TAG)
buildah run --isolation chroot "$container" python - <image/cuda.py
"""

import ctypes
import re
from pathlib import Path

import tensorflow as tf

NEEDED = {"cublas", "cublasLt", "cudart", "cudnn", "cufft", "cusolver", "cusparse"}

# What TensorFlow itself calls, once it has found a driver: it searches the folders that its own library names.
opens = ctypes.CDLL(tf.sysconfig.get_link_flags()[0].removeprefix("-L") + "/libtensorflow_framework.so.2")
opens["_ZN3tsl8internal9DsoLoader26MaybeTryDlopenGPULibrariesEv"](ctypes.byref(ctypes.c_uint64()))
loaded = dict(re.findall(r"/nvidia/\S+/lib(\w+)\.so\.(\S+)", Path("/proc/self/maps").read_text(encoding="utf-8")))
built = tf.sysconfig.get_build_info()
print(f"TensorFlow {tf.__version__}, built for CUDA {built['cuda_version']} and cuDNN {built['cudnn_version']}, opened")
print(*(f"lib{name}.so.{version}" for name, version in sorted(loaded.items())))
missing = NEEDED - loaded.keys()
assert not missing, f"not found: {sorted(missing)}"
