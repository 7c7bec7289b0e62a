"""The subcommands of ``medxlate``, one a file; ``options.py`` holds what several of them share."""
