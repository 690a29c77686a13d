"""The insides of others that we stand on: one module for each dependency."""
