from ..workloads.compiled import use_private_cache

use_private_cache()  # kernels/ imports nothing of ours
