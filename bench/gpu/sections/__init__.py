"""A module a section. `items(context)` gives (name, function) pairs, which are run in order."""
