"""cavmae: the CAV-MAE model and its streaming trainer.

The names of `__init__.pyi` are imported when they are first used, so that `import cavmae` is
instant and does not load PyTorch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
