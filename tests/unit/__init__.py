"""Pure tests that mirror src/salver: no loop, socket, process or sleep."""
