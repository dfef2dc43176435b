/*
 * heap.h - blocks of any size on managed memory (csrc/README.md, Heap).
 */

typedef struct uswap_heap uswap_heap;

/* The allocator of small blocks: path is a libtbbmalloc. Once a process; later calls change nothing. */
int uswap_heap_load(const char *path, uswap_error *err);
/* name: of its regions. limit_bytes: of the pool. The pool must live until uswap_heap_end has returned 0. */
int uswap_heap_create(uswap_pool *pool, const char *name, uint64_t limit_bytes, uswap_heap **heap, uswap_error *err);
/* => no new blocks; those there are stay, and may be freed. */
void uswap_heap_refuse(uswap_heap *heap);
/* => blocks in use. */
uint64_t uswap_heap_blocks(uswap_heap *heap);
/* => no block can be had any more, all memory is given back. USWAP_E_BUSY while blocks are in use: nothing has changed. Ending twice is no error. */
int uswap_heap_end(uswap_heap *heap, uswap_error *err);
/* Frees the structure itself, after uswap_heap_end; nobody may have its handler any more. */
void uswap_heap_forget(uswap_heap *heap);
/* => how many regions there are, at most capacity, whose ids are written. */
uint32_t uswap_heap_regions(uswap_heap *heap, uint64_t *regions, uint32_t capacity);
/* => a PyDataMem_Handler, version 1, valid as long as the heap. */
void *uswap_heap_numpy_handler(uswap_heap *heap);
/* numpy_default: NumPy's default handler, whose functions are replaced once and for good. => it takes blocks from the heap, or, with NULL, as ever; each
 * block goes back to where it came from. Context: the GIL is held. */
void uswap_heap_everywhere(void *numpy_default, uswap_heap *heap);
