"""Models built by Hugging Face transformers from a configuration: those of the zoo, and any ``config.json`` on disk.

Nothing is downloaded, no weight is read, and no code that a configuration names is ever run.
"""

from .config import hf_config_source
from .zoo import zoo_classifier, zoo_source

__all__ = ["hf_config_source", "zoo_classifier", "zoo_source"]
