"""Pictures in, published model versions out. Offline: the service never imports this package."""
