"""The flags of the command line: their names, help texts and panels, as types.

Stage: options, one annotated type for each flag, which a command's parameters use. Never reads a
value; see `parsing`, `wishes` and `config` for what is allowed.
"""
