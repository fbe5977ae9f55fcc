/*
 * Write tracking: counts by kind, who is told what, and that every way to write is seen.
 */
#include "mmu/mem.h"
#include "mmu_rig.h"

static struct rig rig;

struct listener {
    struct track_listener l;
    unsigned writes, flushes;
    gpa_t gpa[8];
    size_t len[8];
    uint8_t first[8];
    gfn_t flush_start;
    uint64_t flush_pages;
    bool leave; /* unregisters itself at its first write */
    bool deaf;  /* no write means anything to it */
};

static bool on_write(struct track_listener *l, unsigned as, gpa_t gpa, const void *bytes, size_t len)
{
    struct listener *t = container_of(l, struct listener, l);
    t->gpa[t->writes & 7] = gpa;
    t->len[t->writes & 7] = len;
    t->first[t->writes & 7] = *(const uint8_t *)bytes;
    t->writes++;
    if (t->leave)
        track_unregister(rig.mem, l);
    return !t->deaf;
}

static void on_flush(struct track_listener *l, unsigned as, gfn_t start, uint64_t pages)
{
    struct listener *t = container_of(l, struct listener, l);
    t->flushes++;
    t->flush_start = start;
    t->flush_pages = pages;
}

static struct listener code, watch;

static void setup(void)
{
    rig_open(&rig, &(struct rig_config){.kind = MMU_WALK, .ram = 4 << 20});
    code = (struct listener){.l = {.write = on_write, .flush_slot = on_flush, .kind = TRACK_CODE}};
    watch = (struct listener){.l = {.write = on_write, .kind = TRACK_WATCH}};
    track_register(rig.mem, &code.l);
    track_register(rig.mem, &watch.l);
}

static void teardown(void)
{
    track_unregister(rig.mem, &code.l);
    track_unregister(rig.mem, &watch.l);
    rig_close(&rig);
}

START_TEST(only_kinds_with_a_count_are_told)
{
    rig_put(&rig, 0x2000, 1);
    track_add(rig.mem, 0, 2, TRACK_CODE);
    rig_put(&rig, 0x2008, 0x77);
    ck_assert_uint_eq(code.writes, 1);
    ck_assert_uint_eq(watch.writes, 0);
    ck_assert_uint_eq(code.gpa[0], 0x2008);
    ck_assert_uint_eq(code.len[0], 8);
    ck_assert_uint_eq(code.first[0], 0x77);
    track_add(rig.mem, 0, 2, TRACK_WATCH);
    rig_put(&rig, 0x2010, 1);
    ck_assert_uint_eq(code.writes, 2);
    ck_assert_uint_eq(watch.writes, 1);
    track_remove(rig.mem, 0, 2, TRACK_CODE);
    rig_put(&rig, 0x2010, 2);
    ck_assert_uint_eq(code.writes, 2);
    ck_assert_uint_eq(watch.writes, 2);
}
END_TEST

START_TEST(counts_nest_and_never_fall_below_zero)
{
    track_remove(rig.mem, 0, 3, TRACK_CODE);
    track_add(rig.mem, 0, 3, TRACK_CODE);
    track_add(rig.mem, 0, 3, TRACK_CODE);
    ck_assert_uint_eq(track_count(rig.mem, 0, 3, TRACK_CODE), 2);
    track_remove(rig.mem, 0, 3, TRACK_CODE);
    ck_assert(track_is_tracked(rig.mem, 0, 3));
    track_remove(rig.mem, 0, 3, TRACK_CODE);
    ck_assert(!track_is_tracked(rig.mem, 0, 3));
    track_remove(rig.mem, 0, 3, TRACK_CODE);
    ck_assert_uint_eq(track_count(rig.mem, 0, 3, TRACK_CODE), 0);
}
END_TEST

START_TEST(write_that_means_nothing_to_anyone_is_not_counted)
{
    track_add(rig.mem, 0, 2, TRACK_CODE);
    track_add(rig.mem, 0, 2, TRACK_WATCH);
    uint64_t before = track_write_count(rig.mem);
    code.deaf = true;
    rig_put(&rig, 0x2000, 1);
    ck_assert_uint_eq(track_write_count(rig.mem), before + 1);
    watch.deaf = true;
    rig_put(&rig, 0x2000, 1);
    ck_assert_uint_eq(track_write_count(rig.mem), before + 1);
    ck_assert_uint_eq(code.writes, 2);
}
END_TEST

START_TEST(address_spaces_are_tracked_apart)
{
    track_add(rig.mem, 1, 3, TRACK_CODE);
    rig_put(&rig, 0x3000, 1);
    ck_assert_uint_eq(code.writes, 0);
    ck_assert(!track_is_tracked(rig.mem, 0, 3));
}
END_TEST

START_TEST(write_across_two_tracked_pages_arrives_as_two)
{
    track_add(rig.mem, 0, 4, TRACK_CODE);
    track_add(rig.mem, 0, 5, TRACK_CODE);
    rig_put(&rig, 0x4ffd, 0x0807060504030201ull);
    ck_assert_uint_eq(code.writes, 2);
    ck_assert_uint_eq(code.gpa[0], 0x4ffd);
    ck_assert_uint_eq(code.len[0], 3);
    ck_assert_uint_eq(code.gpa[1], 0x5000);
    ck_assert_uint_eq(code.len[1], 5);
    ck_assert_uint_eq(code.first[1], 4);
}
END_TEST

START_TEST(every_way_to_write_is_seen)
{
    struct guest_memory hook;
    uint64_t v = 9;
    track_add(rig.mem, 0, 6, TRACK_CODE);
    mem_hook(rig.mem, &hook);
    ck_assert_int_eq(guest_mem_write(&hook, 0x6000, &v, 8, MEM_DMA), MEM_OK);
    ck_assert_uint_eq(code.writes, 1);
    mem_access(rig.mem, 0, 0x6000, &v, 8, MEM_HOST_POKE, true, 0);
    ck_assert_uint_eq(code.writes, 2);
    mem_access(rig.mem, 0, 0x6000, &v, 8, MEM_WALK, true, 0);
    ck_assert_uint_eq(code.writes, 3);
    uint8_t *host = mem_page_write(rig.mem, 0, 6);
    host[5] = 0x33;
    mem_written(rig.mem, 0, 0x6005, 1);
    ck_assert_uint_eq(code.writes, 4);
    ck_assert_uint_eq(code.first[3], 0x33);
    mem_written(rig.mem, 0, 0x5000, 0x3000); /* of which one page is tracked */
    ck_assert_uint_eq(code.writes, 5);
    ck_assert_uint_eq(code.gpa[4], 0x6000);
    ck_assert_uint_eq(code.len[4], 0x1000);
    ck_assert_uint_eq(track_write_count(rig.mem), 5);
}
END_TEST

START_TEST(write_count_moves_only_when_someone_heard)
{
    uint64_t before = track_write_count(rig.mem);
    rig_put(&rig, 0x7000, 1);
    ck_assert_uint_eq(track_write_count(rig.mem), before);
    track_add(rig.mem, 0, 7, TRACK_FB); /* nobody listens to this kind */
    rig_put(&rig, 0x7000, 1);
    ck_assert_uint_eq(track_write_count(rig.mem), before);
    track_add(rig.mem, 0, 7, TRACK_WATCH);
    track_add(rig.mem, 0, 7, TRACK_CODE);
    rig_put(&rig, 0x7000, 1);
    ck_assert_uint_eq(track_write_count(rig.mem), before + 1);
}
END_TEST

START_TEST(large_page_questions_see_any_gfn_of_the_frame)
{
    ck_assert(!track_any_in_large(rig.mem, 0, 0x40000, 2));
    track_add(rig.mem, 0, 0x401ff, TRACK_CODE);
    ck_assert(track_any_in_large(rig.mem, 0, 0x40000, 2));
    ck_assert(track_any_in_large(rig.mem, 0, 0x40123, 2));
    ck_assert(!track_any_in_large(rig.mem, 0, 0x40200, 2));
    ck_assert(track_any_in_large(rig.mem, 0, 0x7ffff, 3));
    ck_assert(!track_any_in_large(rig.mem, 0, 0x80000, 3));
    track_add(rig.mem, 0, 0x401ff, TRACK_WATCH);
    track_remove(rig.mem, 0, 0x401ff, TRACK_CODE);
    ck_assert(track_any_in_large(rig.mem, 0, 0x40000, 2));
    track_remove(rig.mem, 0, 0x401ff, TRACK_WATCH);
    ck_assert(!track_any_in_large(rig.mem, 0, 0x40000, 2));
    ck_assert(!track_any_in_large(rig.mem, 0, 0x7ffff, 3));
}
END_TEST

START_TEST(gfns_beyond_every_address_are_harmless)
{
    track_add(rig.mem, 0, ~0ull, TRACK_CODE);
    ck_assert(!track_is_tracked(rig.mem, 0, ~0ull));
    track_remove(rig.mem, 0, ~0ull, TRACK_CODE);
    track_add(rig.mem, 0, (1ull << 40) - 1, TRACK_CODE);
    ck_assert(track_is_tracked(rig.mem, 0, (1ull << 40) - 1));
}
END_TEST

START_TEST(a_listener_may_leave_while_it_is_told)
{
    track_add(rig.mem, 0, 8, TRACK_CODE);
    track_add(rig.mem, 0, 8, TRACK_WATCH);
    code.leave = true;
    rig_put(&rig, 0x8000, 1);
    rig_put(&rig, 0x8000, 1);
    ck_assert_uint_eq(code.writes, 1);
    ck_assert_uint_eq(watch.writes, 2);
}
END_TEST

START_TEST(deleting_a_slot_tells_the_listeners)
{
    ck_assert_int_eq(mem_slot_delete(rig.mem, 0, 0), 0);
    ck_assert_uint_eq(code.flushes, 1);
    ck_assert_uint_eq(code.flush_start, 0);
    ck_assert_uint_eq(code.flush_pages, 1024);
}
END_TEST

START_TEST(tracking_takes_the_write_tag_and_leaves_the_read_tag)
{
    rig_load(&rig); /* paging off */
    struct xlate x;
    ck_assert_int_eq(rig_translate(&rig, 0x9010, ACCESS_WRITE, &x), XLATE_OK);
    ck_assert_ptr_nonnull(x.host);
    ck_assert_ptr_nonnull(tlb_lookup_write(rig.v, 0x9010, 8));
    track_add(rig.mem, 0, 9, TRACK_CODE);
    ck_assert_ptr_null(tlb_lookup_write(rig.v, 0x9010, 8));
    ck_assert_ptr_nonnull(tlb_lookup_read(rig.v, 0x9010, 8));
    uint64_t misses = rig.mmu->stats.tlb_misses;
    ck_assert_int_eq(rig_translate(&rig, 0x9018, ACCESS_WRITE, &x), XLATE_OK); /* answered by the TLB: no walk */
    ck_assert_ptr_null(x.host);
    ck_assert_uint_eq(x.gpa, 0x9018);
    ck_assert_uint_eq(rig.mmu->stats.tlb_misses, misses);
}
END_TEST

START_TEST(gfns_that_differ_in_any_bit_are_told_apart)
{
    struct gfn_tree t;
    void *chunk, *made[GFN_BITS];
    gfn_tree_init(&t, 64);
    for (unsigned bit = 9; bit < GFN_BITS; bit++) {
        ck_assert_ptr_null(gfn_tree_find(&t, (gfn_t)1 << bit));
        made[bit] = gfn_tree_make(&t, (gfn_t)1 << bit);
    }
    gfn_t g = gfn_tree_next(&t, 0, GFN_LIMIT, &chunk);
    for (unsigned bit = 9; bit < GFN_BITS; bit++) {
        ck_assert_uint_eq(g, (gfn_t)1 << bit);
        ck_assert_ptr_eq(chunk, made[bit]);
        g = gfn_tree_next(&t, (g | (GFN_CHUNK - 1)) + 1, GFN_LIMIT, &chunk);
    }
    ck_assert_uint_eq(g, UINT64_MAX);
    gfn_tree_fini(&t);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("mmu: tracking");
    TCase *t = tcase_create("tracking");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, gfns_that_differ_in_any_bit_are_told_apart);
    tcase_add_test(t, only_kinds_with_a_count_are_told);
    tcase_add_test(t, counts_nest_and_never_fall_below_zero);
    tcase_add_test(t, write_that_means_nothing_to_anyone_is_not_counted);
    tcase_add_test(t, address_spaces_are_tracked_apart);
    tcase_add_test(t, write_across_two_tracked_pages_arrives_as_two);
    tcase_add_test(t, every_way_to_write_is_seen);
    tcase_add_test(t, write_count_moves_only_when_someone_heard);
    tcase_add_test(t, large_page_questions_see_any_gfn_of_the_frame);
    tcase_add_test(t, gfns_beyond_every_address_are_harmless);
    tcase_add_test(t, a_listener_may_leave_while_it_is_told);
    tcase_add_test(t, deleting_a_slot_tells_the_listeners);
    tcase_add_test(t, tracking_takes_the_write_tag_and_leaves_the_read_tag);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
