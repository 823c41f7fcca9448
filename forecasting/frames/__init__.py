"""Frames: tables read, verified and aligned into a panel, and written as they came."""
