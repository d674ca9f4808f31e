"""The whole accelerator in RTL (docs/design/accelerator.md)."""
