"""`scheduler bench`: how this installation fares on this machine, on a database made for it."""
