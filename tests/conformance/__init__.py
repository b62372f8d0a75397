"""Raw bytes on sockets to a real run: what a hostile or odd client gets, and what a replica may see of it."""
