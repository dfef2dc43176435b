/*
 * group_info.h - what the commons say of a group, its members and its objects: for members, and for who only looks.
 */
#ifndef USWAP_SHARED_GROUP_INFO_H
#define USWAP_SHARED_GROUP_INFO_H

#include "shared/commons.h"

/* Frames that every member is to have at least, with the bounce frames of its threads for shared pages, and bounce_frames of its private pool. */
uint64_t group_floor_frames(uint64_t limit_bytes, uint64_t bounce_frames);
void group_info_get(const commons *c, uswap_group_info *info);
/* Return: how many there are; at most capacity are written. */
uint32_t group_info_members(const commons *c, member_id self, uswap_member_info *infos, uint32_t capacity);
/* Return: false: there is no such object. */
bool group_info_object(const commons *c, uint32_t index, uswap_object_info *info);
uint32_t group_info_objects(const commons *c, uswap_object_info *infos, uint32_t capacity);

#endif
