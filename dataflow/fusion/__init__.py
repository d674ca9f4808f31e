"""Vector work joined to the op that makes its tensor, before any machine is looked at: see `fuse`."""
