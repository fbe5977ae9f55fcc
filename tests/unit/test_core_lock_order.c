/* The check of the order of locks. */
#include "check_main.h"
#include "core/host/lock_order.h"

static struct lock_order order;
static const int ksm, mm, mirror, mmu, pool; /* what they are does not matter, only that they differ */

static void setup(void)
{
    lock_order_init(&order);
}

static void teardown(void)
{
    lock_order_fini(&order);
}

START_TEST(stated_order_is_allowed)
{
    ck_assert_ptr_null(lock_order_take(&order, LOCK_RANK_KSM, &ksm));
    ck_assert_ptr_null(lock_order_take(&order, LOCK_RANK_HOST_MM, &mm));
    ck_assert_ptr_null(lock_order_take(&order, LOCK_RANK_HOST_MM, &mirror));
    ck_assert_ptr_null(lock_order_take(&order, LOCK_RANK_MMU, &mmu));
    ck_assert_ptr_null(lock_order_take(&order, LOCK_RANK_POOL, &pool));
    ck_assert_uint_eq(order.count, 5);
}
END_TEST

START_TEST(host_mm_under_the_mmu_lock_is_refused)
{
    ck_assert_ptr_null(lock_order_take(&order, LOCK_RANK_MMU, &mmu));
    const char *why = lock_order_take(&order, LOCK_RANK_HOST_MM, &mm);
    ck_assert_ptr_nonnull(why);
    ck_assert_ptr_nonnull(strstr(why, "under the MMU lock"));
    lock_order_drop(&order, &mmu);
    ck_assert_ptr_null(lock_order_take(&order, LOCK_RANK_HOST_MM, &mm));
}
END_TEST

START_TEST(lock_that_is_held_may_be_taken_again_under_a_later_one)
{
    ck_assert_ptr_null(lock_order_take(&order, LOCK_RANK_HOST_MM, &mm));
    ck_assert_ptr_null(lock_order_take(&order, LOCK_RANK_MMU, &mmu));
    ck_assert_ptr_null(lock_order_take(&order, LOCK_RANK_HOST_MM, &mm));
    lock_order_drop(&order, &mm);
    ck_assert_uint_eq(order.count, 2);
    lock_order_drop(&order, &mm);
    lock_order_drop(&order, &mmu);
    ck_assert_uint_eq(order.count, 0);
}
END_TEST

static void *take_host_mm(void *arg)
{
    return (void *)(uintptr_t)lock_order_take(&order, LOCK_RANK_HOST_MM, &mm);
}

START_TEST(each_thread_has_its_own_order)
{
    pthread_t t;
    void *why = NULL;
    ck_assert_ptr_null(lock_order_take(&order, LOCK_RANK_MMU, &mmu));
    ck_assert_int_eq(pthread_create(&t, NULL, take_host_mm, NULL), 0);
    pthread_join(t, &why);
    ck_assert_ptr_null(why);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("lock order");
    TCase *t = tcase_create("lock order");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, stated_order_is_allowed);
    tcase_add_test(t, host_mm_under_the_mmu_lock_is_refused);
    tcase_add_test(t, lock_that_is_held_may_be_taken_again_under_a_later_one);
    tcase_add_test(t, each_thread_has_its_own_order);
    suite_add_tcase(s, t);
    return s;
}

CHECK_MAIN(suite)
