"""The Hub: what comes from it is looked at before it is used, what goes there is proven first."""
