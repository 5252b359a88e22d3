"""Capture: what is computed. An nn.Module becomes a planning Graph and the exported module it came from."""
