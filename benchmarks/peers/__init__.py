"""What one would otherwise serve a SavedModel with, each app as that project's own documents have it written."""
