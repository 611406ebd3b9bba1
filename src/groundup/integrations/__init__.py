"""Residual warmup in other people's training loops; each module needs its own library.

`transformers` and `lightning` are callbacks, `torchtitan` wraps a model's train spec. Accelerate
and timm need no code: `gu.attach(model, …).follow(optimizer)` is enough (docs/integrations.md).
Nothing else in groundup imports from here.
"""
