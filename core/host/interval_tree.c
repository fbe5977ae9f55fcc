#include "core/host/interval_tree.h"

/* The heap order of the treap: a mixed serial, so that insertion in order of start does not make a list (Murmur3's
 * 64-bit finaliser). */
static uint64_t priority(const struct interval_notifier *n)
{
    uint64_t x = n->serial + 1;
    x = (x ^ (x >> 33)) * 0xff51afd7ed558ccdull;
    x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53ull;
    return x ^ (x >> 33);
}

static bool is_before(const struct interval_notifier *a, const struct interval_notifier *b)
{
    return a->start < b->start || (a->start == b->start && a->serial < b->serial);
}

static void update(struct interval_notifier *n)
{
    n->subtree_end = n->end;
    for (int i = 0; i < 2; i++)
        if (n->child[i] && n->child[i]->subtree_end > n->subtree_end)
            n->subtree_end = n->child[i]->subtree_end;
}

/* Lifts the child on side `side` above its parent; returns it. */
static struct interval_notifier *rotate(struct interval_notifier *parent, int side)
{
    struct interval_notifier *up = parent->child[side];
    parent->child[side] = up->child[!side];
    up->child[!side] = parent;
    update(parent);
    update(up);
    return up;
}

static struct interval_notifier *insert_below(struct interval_notifier *root, struct interval_notifier *n)
{
    if (!root)
        return n;
    int side = is_before(root, n);
    root->child[side] = insert_below(root->child[side], n);
    if (priority(root->child[side]) > priority(root))
        return rotate(root, side);
    update(root);
    return root;
}

void interval_tree_insert(struct interval_notifier **root, struct interval_notifier *n)
{
    n->child[0] = n->child[1] = NULL;
    update(n);
    *root = insert_below(*root, n);
}

/* Joins two trees, all of `a` before all of `b`. */
static struct interval_notifier *join(struct interval_notifier *a, struct interval_notifier *b)
{
    if (!a || !b)
        return a ? a : b;
    if (priority(a) > priority(b)) {
        a->child[1] = join(a->child[1], b);
        update(a);
        return a;
    }
    b->child[0] = join(a, b->child[0]);
    update(b);
    return b;
}

static struct interval_notifier *remove_below(struct interval_notifier *root, struct interval_notifier *n)
{
    if (!root)
        return NULL;
    if (root == n)
        return join(n->child[0], n->child[1]);
    int side = is_before(root, n);
    root->child[side] = remove_below(root->child[side], n);
    update(root);
    return root;
}

void interval_tree_remove(struct interval_notifier **root, struct interval_notifier *n)
{
    *root = remove_below(*root, n);
    n->child[0] = n->child[1] = NULL;
}

bool interval_tree_walk(struct interval_notifier *root, hva_t start, hva_t end,
                        bool (*visit)(struct interval_notifier *n, void *ctx), void *ctx)
{
    if (!root || root->subtree_end <= start)
        return true;
    if (!interval_tree_walk(root->child[0], start, end, visit, ctx))
        return false;
    if (root->start >= end)
        return true;
    if (root->end > start && !visit(root, ctx))
        return false;
    return interval_tree_walk(root->child[1], start, end, visit, ctx);
}

bool interval_tree_meets(const struct interval_notifier *root, hva_t start, hva_t end)
{
    while (root && root->subtree_end > start) {
        if (root->start < end && root->end > start)
            return true;
        /* If the left subtree reaches beyond `start` but holds no match, all that is to the right starts too late as
         * well. */
        const struct interval_notifier *left = root->child[0];
        root = left && left->subtree_end > start ? left : root->child[1];
    }
    return false;
}
