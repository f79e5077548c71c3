"""The plugin source: QEMU's TCG calls C code of ours, which writes the event stream to a socket.

``plugin.c`` is where QEMU enters; :class:`cosim.capture.plugin.source.PluginSource` is what a
session uses.
"""
