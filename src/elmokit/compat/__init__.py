"""The front doors of older ELMo tools: the names, arguments, shapes and types that code written for them expects.

One module or folder for each tool, none of which imports another; `docs/migrating.md` shows the line to change and
lists what differs. The computing is all elsewhere in elmokit.
"""
