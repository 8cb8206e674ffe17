"""The HTTP service and its page: OpenAI-compatible routes on the engine, safe to expose by its defaults."""
