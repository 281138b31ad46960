#!/usr/bin/env python
"""Serve a page on this machine: choose or upload an image pair, type class names, look at the map, download it.

    tools/serve_demo.py
    tools/serve_demo.py --config-file my_config.py --weights my_model.safetensors --device cuda

Needs Gradio (the extra `web`). Nothing leaves the machine, and nobody outside of it reaches the page, unless --host
says so. Ctrl-C ends it.
"""

from __future__ import annotations

from mmovseg.errors import exit_on_user_error
from mmovseg.web.command import serve_main

main = exit_on_user_error(serve_main)

if __name__ == "__main__":
    main()
