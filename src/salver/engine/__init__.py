"""Who gives us processes. An engine owns lives, never bytes, and does not know what a deployment is."""
