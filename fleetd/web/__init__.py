"""The HTTP API: who asks, is it well formed, which service answers. No decision is taken here."""
