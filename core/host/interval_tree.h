/*
 * An interval tree of interval notifiers: a treap ordered by (start, serial), each node carrying the largest end of its
 * subtree.
 *
 * The tree has no lock: the notifier bus changes it under its own, and never while a walk is under way. Its shape
 * depends on serial numbers alone, and walks go in the order of (start, serial), so nothing of the host's addresses
 * shows.
 */
#ifndef CORE_HOST_INTERVAL_TREE_H
#define CORE_HOST_INTERVAL_TREE_H

#include "core/host/notifier.h"

/* `n` has start, end and a serial that no other node of the tree has. */
void interval_tree_insert(struct interval_notifier **root, struct interval_notifier *n);
void interval_tree_remove(struct interval_notifier **root, struct interval_notifier *n);
/* True if some node meets [start, end). */
bool interval_tree_meets(const struct interval_notifier *root, hva_t start, hva_t end);
/* Calls `visit` for each node that meets [start, end), in order, until one returns false; returns that result. */
bool interval_tree_walk(struct interval_notifier *root, hva_t start, hva_t end,
                        bool (*visit)(struct interval_notifier *n, void *ctx), void *ctx);

#endif
