"""Papers' settings, a module for each family; each has SETTINGS: name -> an object with `title`, `published`, `run`."""
