"""How large the engines' caches are, in the blocks by which prompts are matched."""

from picker.engines.table import BLOCK_SIZE, NUM_BLOCKS, EngineTable
from picker.pool.view import Slots
from picker.requests.reader import text_block_tokens


def cache_config(table: EngineTable, slots: Slots, block_tokens: int) -> tuple[int, list[tuple[int, int]]]:
    """Tokens of the engines' blocks, the fewest of all, and of each slot that tells its size, how many blocks of text
    its cache has room for. `block_tokens` is what holds as long as none tells."""
    sizes, blocks = table.columns[BLOCK_SIZE, slots], table.columns[NUM_BLOCKS, slots]
    known = sizes[sizes > 1]
    if len(known):
        block_tokens = int(known.min())
    worth = text_block_tokens(block_tokens)
    rooms = zip(slots.tolist(), (sizes * blocks).tolist(), strict=True)
    return block_tokens, [(slot, int(tokens / worth)) for slot, tokens in rooms if tokens > 0]
