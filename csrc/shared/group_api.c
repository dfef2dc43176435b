/*
 * group_api.c - the API of named pools and shared regions.
 */
#include "base/status.h"
#include "pool.h"

EXPORT int uswap_group_create(uswap_pool *pool, const char *folder, uint64_t limit_bytes, const char *swap_folder,
                              uint32_t map_for_peers, uswap_error *err) {
    (void)pool;
    (void)folder;
    (void)limit_bytes;
    (void)swap_folder;
    (void)map_for_peers;
    return error_set(err, USWAP_E_UNSUPPORTED, 0, "group", NULL, "not built yet");
}

EXPORT int uswap_group_join(uswap_pool *pool, const char *folder, uswap_error *err) {
    (void)pool;
    (void)folder;
    return error_set(err, USWAP_E_UNSUPPORTED, 0, "group", NULL, "not built yet");
}

EXPORT int uswap_group_leave(uswap_pool *pool, uswap_error *err) {
    (void)pool;
    return error_set(err, USWAP_E_UNSUPPORTED, 0, "group", NULL, "not built yet");
}

EXPORT int uswap_group_get_info(uswap_pool *pool, uswap_group_info *info, uswap_error *err) {
    (void)pool;
    (void)info;
    return error_set(err, USWAP_E_UNSUPPORTED, 0, "group", NULL, "not built yet");
}

EXPORT int uswap_group_set_limit(uswap_pool *pool, uint64_t limit_bytes, uswap_error *err) {
    (void)pool;
    (void)limit_bytes;
    return error_set(err, USWAP_E_UNSUPPORTED, 0, "group", NULL, "not built yet");
}

EXPORT int uswap_group_members(uswap_pool *pool, uswap_member_info *infos, uint32_t capacity, uswap_error *err) {
    (void)pool;
    (void)infos;
    (void)capacity;
    return error_set(err, USWAP_E_UNSUPPORTED, 0, "group", NULL, "not built yet");
}

EXPORT int uswap_group_objects(uswap_pool *pool, uswap_object_info *infos, uint32_t capacity, uswap_error *err) {
    (void)pool;
    (void)infos;
    (void)capacity;
    return error_set(err, USWAP_E_UNSUPPORTED, 0, "group", NULL, "not built yet");
}

EXPORT int uswap_group_look(const char *folder, uswap_group_info *info, uswap_member_info *members,
                            uint32_t member_capacity, uswap_object_info *objects, uint32_t object_capacity,
                            uswap_error *err) {
    (void)folder;
    (void)info;
    (void)members;
    (void)member_capacity;
    (void)objects;
    (void)object_capacity;
    return error_set(err, USWAP_E_UNSUPPORTED, 0, "group", NULL, "not built yet");
}

EXPORT int uswap_group_check(uswap_pool *pool, uswap_error *err) {
    (void)pool;
    return error_set(err, USWAP_E_UNSUPPORTED, 0, "group", NULL, "not built yet");
}

EXPORT int uswap_shared_create(uswap_pool *pool, uint64_t bytes, const char *name, uint64_t region_id, uint32_t *object,
                               int *fd, uswap_error *err) {
    (void)pool;
    (void)bytes;
    (void)name;
    (void)region_id;
    (void)object;
    (void)fd;
    return error_set(err, USWAP_E_UNSUPPORTED, 0, "group", NULL, "not built yet");
}

EXPORT int uswap_shared_open(uswap_pool *pool, const char *name, uint32_t *object, uint64_t *bytes, int *fd,
                             uswap_error *err) {
    (void)pool;
    (void)name;
    (void)object;
    (void)bytes;
    (void)fd;
    return error_set(err, USWAP_E_UNSUPPORTED, 0, "group", NULL, "not built yet");
}

EXPORT int uswap_shared_map(uswap_pool *pool, uint32_t object, int fd, void *address, void *alias, uswap_error *err) {
    (void)pool;
    (void)object;
    (void)fd;
    (void)address;
    (void)alias;
    return error_set(err, USWAP_E_UNSUPPORTED, 0, "group", NULL, "not built yet");
}

EXPORT int uswap_shared_unmap(uswap_pool *pool, uint32_t object, uswap_error *err) {
    (void)pool;
    (void)object;
    return error_set(err, USWAP_E_UNSUPPORTED, 0, "group", NULL, "not built yet");
}

EXPORT int uswap_shared_get_info(uswap_pool *pool, uint32_t object, uswap_object_info *info, uswap_error *err) {
    (void)pool;
    (void)object;
    (void)info;
    return error_set(err, USWAP_E_UNSUPPORTED, 0, "group", NULL, "not built yet");
}

EXPORT int uswap_shared_advise(uswap_pool *pool, uint32_t object, uint64_t start_bytes, uint64_t length_bytes,
                               uint32_t advice, uswap_error *err) {
    (void)pool;
    (void)object;
    (void)start_bytes;
    (void)length_bytes;
    (void)advice;
    return error_set(err, USWAP_E_UNSUPPORTED, 0, "group", NULL, "not built yet");
}

EXPORT int uswap_shared_hold(uswap_pool *pool, uint32_t object, uint64_t start_bytes, uint64_t length_bytes,
                             uswap_error *err) {
    (void)pool;
    (void)object;
    (void)start_bytes;
    (void)length_bytes;
    return error_set(err, USWAP_E_UNSUPPORTED, 0, "group", NULL, "not built yet");
}

EXPORT int uswap_shared_release(uswap_pool *pool, uint32_t object, uint64_t start_bytes, uint64_t length_bytes,
                                uswap_error *err) {
    (void)pool;
    (void)object;
    (void)start_bytes;
    (void)length_bytes;
    return error_set(err, USWAP_E_UNSUPPORTED, 0, "group", NULL, "not built yet");
}

EXPORT int uswap_shared_verify(uswap_pool *pool, uint32_t object, uint64_t start_bytes, uint64_t length_bytes,
                               uswap_error *err) {
    (void)pool;
    (void)object;
    (void)start_bytes;
    (void)length_bytes;
    return error_set(err, USWAP_E_UNSUPPORTED, 0, "group", NULL, "not built yet");
}

EXPORT int uswap_shared_page_classes(uswap_pool *pool, uint32_t object, uint64_t first_page, uint64_t pages,
                                     uint8_t *classes, uswap_error *err) {
    (void)pool;
    (void)object;
    (void)first_page;
    (void)pages;
    (void)classes;
    return error_set(err, USWAP_E_UNSUPPORTED, 0, "group", NULL, "not built yet");
}

EXPORT int uswap_shared_users(uswap_pool *pool, uint32_t object, uint64_t page, uswap_page_user *users,
                              uint32_t capacity, uswap_error *err) {
    (void)pool;
    (void)object;
    (void)page;
    (void)users;
    (void)capacity;
    return error_set(err, USWAP_E_UNSUPPORTED, 0, "group", NULL, "not built yet");
}
