"""The page on which trained models are tried."""

from finetune.demo.app import build_app, launch

__all__ = ["build_app", "launch"]
