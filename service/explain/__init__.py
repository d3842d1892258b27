"""Why a model says what it says: one method a module, the same signature each."""
