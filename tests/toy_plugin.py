"""What `fastpop --plugin toy_plugin` imports: it registers every part of toy_parts."""

import toy_parts

import fastpop

for kind, parts in toy_parts.PARTS.items():
    for part in parts:
        fastpop.register(kind, part)
