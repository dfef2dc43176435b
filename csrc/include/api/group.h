/*
 * group.h - processes of one pool (csrc/README.md, Processes of one pool; shared/).
 */

/* Makes the pool a named one, of which this process is the first member: its limit becomes a part of limit_bytes. folder: the named pool's
 * own, empty, mode 0700, this user's; the caller holds the lock of its creation. swap_folder: where the shared swap file (without a name)
 * lies. map_for_peers: 1: a shared page that any member brings in is mapped in all that have its region, for as long as there is the pool. */
int uswap_group_create(uswap_pool *pool, const char *folder, uint64_t limit_bytes, const char *swap_folder,
                       uint32_t map_for_peers, uswap_error *err);
/* Makes the pool a member of the one whose folder that is. USWAP_E_CLOSED: nobody alive is there. USWAP_E_UNSUPPORTED: of an incompatible
 * build. USWAP_E_NOT_OURS: another user's. USWAP_E_LIMIT: no floor is to be had. USWAP_E_BUSY: there are as many members as there can be. */
int uswap_group_join(uswap_pool *pool, const char *folder, uswap_error *err);
/* Shared regions must have been unmapped. => the pool's limit stays what it is; => 1 if it was the last member, and the folder is gone. Also
 * done by uswap_pool_destroy. */
int uswap_group_leave(uswap_pool *pool, uswap_error *err);

typedef struct {
    uint64_t limit_bytes;           /* of all members together */
    uint64_t free_bytes;            /* nobody's */
    uint64_t shared_limit_bytes;    /* what of it is for shared pages, and ... */
    uint64_t shared_resident_bytes; /* ... used by them */
    uint64_t shared_swap_used_bytes;
    uint64_t floor_bytes; /* of each member */
    uint64_t members;
    uint64_t objects;
    uint64_t faults, soft_faults, pages_read, pages_written, evictions, clean_drops, zero_drops, mapped_for_peers;
} uswap_group_info;

typedef struct {
    uint32_t member; /* its id; unique among those alive */
    uint32_t pid;
    uint32_t state;         /* 1: joining, 2: alive, 3: leaving, 4: dead, being cleaned up after */
    uint32_t self;          /* 1: this process */
    uint64_t limit_bytes;   /* its part */
    uint64_t private_bytes; /* used of it */
    uint64_t silent_ns;     /* since its own thread last looked around: large if it is stopped */
} uswap_member_info;

typedef struct {
    uint32_t object; /* index */
    uint32_t creator_pid;
    uint64_t creator_region;
    uint64_t size_bytes;
    uint64_t resident_bytes;
    uint64_t swapped_bytes;
    uint64_t locked_bytes; /* held by any process */
    uint64_t faults;       /* of all processes */
    uint64_t poisoned_pages;
    uint64_t mappers; /* how many processes */
    int64_t priority;
    uint64_t key; /* by which stays name it */
    char name[64];
} uswap_object_info;

typedef struct {
    uint32_t pid;
    uint32_t mapped; /* 1: has the page mapped now, as far as this process can tell; else only the region */
    uint64_t page;
} uswap_page_user;

int uswap_group_get_info(uswap_pool *pool, uswap_group_info *info, uswap_error *err);
int uswap_group_set_limit(uswap_pool *pool, uint64_t limit_bytes, uswap_error *err);
/* => how many there are; at most capacity are written. */
int uswap_group_members(uswap_pool *pool, uswap_member_info *infos, uint32_t capacity, uswap_error *err);
int uswap_group_objects(uswap_pool *pool, uswap_object_info *infos, uint32_t capacity, uswap_error *err);
/* The same of a named pool that this process is no member of (`uswap ls`). Any of the arrays may have capacity 0. counts: members, objects.
 * USWAP_E_CLOSED: nobody alive is there. */
int uswap_group_look(const char *folder, uswap_group_info *info, uswap_member_info *members, uint32_t member_capacity,
                     uswap_object_info *objects, uint32_t object_capacity, uswap_error *err);
/* How many processes are behind the sockets of a named pool's folder; a socket behind which nobody is goes. Waits for nobody. Context: the lock of
 * the folder is held, so nobody is just making a socket. */
int uswap_group_living(const char *folder, uswap_error *err);
/* The group's own consistency check: every frame, slot and chunk is exactly where the words say. Beside members that are at work. */
int uswap_group_check(uswap_pool *pool, uswap_error *err);

/* A new shared object, mapped at address, for others to open. address: a fresh mapping of the larger of bytes and reserve_bytes, page-aligned, not touched yet, to which the object's
 * file comes. The first bytes of it are the region; they stay the caller's to unmap, before uswap_shared_unmap; what is behind them, for the region to grow into,
 * is the core's, and mapping->length is changed (mapping may be NULL if there is nothing behind). => faults there are served; *cell: its index + 1. USWAP_E_INVALID: the name is taken. */
int uswap_shared_create(uswap_pool *pool, void *address, uint64_t bytes, uint64_t reserve_bytes,
                        const uswap_mapping *mapping, const char *name, uint64_t region_id, uint64_t *cell,
                        uswap_error *err);
/* How long a mapping is to be for one that is there and has that id and name: bytes, and what it can grow to. USWAP_E_INVALID: there is none, or not any more. */
int uswap_shared_find(uswap_pool *pool, uint32_t object, uint64_t region_id, const char *name, uint64_t *bytes,
                      uint64_t *reserve_bytes, uswap_error *err);
/* The same object, mapped at address as by uswap_shared_create. USWAP_E_OS with EAGAIN: it has become shorter: find it again; with ETIMEDOUT: all that have it seem to be stopped. */
int uswap_shared_open(uswap_pool *pool, void *address, uint64_t bytes, uint64_t reserve_bytes,
                      const uswap_mapping *mapping, uint32_t object, uint64_t region_id, const char *name,
                      uint64_t *cell, uswap_error *err);
/* How many bytes this process could see of it: others may have changed its size. key: by which stays name it. */
int uswap_shared_size(uswap_pool *pool, uint32_t object, uint64_t *bytes, uint64_t *key, uswap_error *err);
/* As uswap_region_resize, of the object and of what this process sees of it; what other processes see stays as it is. Whole pages; length 0: this
 * process sees all that there is. BUSY: another process sees what is to go, or holds it. After LATER, err says what a caller without patience is to be told. */
int uswap_shared_resize(uswap_pool *pool, uint64_t object, int64_t length, int promise, const uswap_mapping *mapping,
                        uswap_error *err);
int uswap_shared_unmap(uswap_pool *pool, uint32_t object, uswap_error *err);
/* As uswap_region_end and uswap_region_lost; the first number of the cell is the object's index + 1. What is mapped still does no harm if nobody uses it: it is as others' memory of an
 * object that has left. */
int uswap_shared_end(uswap_pool *pool, uint64_t *cell, uswap_error *err);
void uswap_shared_lost(void *capsule);
int uswap_shared_get_info(uswap_pool *pool, uint32_t object, uswap_object_info *info, uswap_error *err);
/* As the calls of the same name for regions. */
int uswap_shared_advise(uswap_pool *pool, uint32_t object, uint64_t start_bytes, uint64_t length_bytes, uint32_t advice,
                        uswap_error *err);
/* set: what it is from now on, for all processes; NULL: as it is. => *now */
int uswap_shared_priority(uswap_pool *pool, uint32_t object, const int32_t *set, int32_t *now, uswap_error *err);
/* In this process alone. */
int uswap_shared_protect(uswap_pool *pool, uint32_t object, uint64_t start_bytes, uint64_t length_bytes,
                         uint32_t protection, uswap_error *err);
/* held: as uswap_region_pin. */
int uswap_shared_hold(uswap_pool *pool, uint32_t object, uint64_t start_bytes, uint64_t length_bytes, uint8_t *held,
                      uswap_error *err);
int uswap_shared_release(uswap_pool *pool, uint32_t object, uint64_t start_bytes, uint64_t length_bytes,
                         uswap_error *err);
int uswap_shared_verify(uswap_pool *pool, uint32_t object, uint64_t start_bytes, uint64_t length_bytes,
                        uswap_error *err);
int uswap_shared_page_classes(uswap_pool *pool, uint32_t object, uint64_t first_page, uint64_t pages, uint8_t *classes,
                              uswap_error *err);
/* => how many use the page; at most capacity are written. */
int uswap_shared_users(uswap_pool *pool, uint32_t object, uint64_t page, uswap_page_user *users, uint32_t capacity,
                       uswap_error *err);
