/* Pictures, sounds and files that a request only points at, fetched for platforms that want the bytes. Loop thread only, within steps of a run.
 *
 * A client chose these addresses: private and loopback ones are refused unless allow_private_fetch is set, redirects are checked anew, time, size and
 * number are bounded. Whatever goes wrong is the client's to mend: CM_ERR_BAD_REQUEST, code invalid_image_url. */
#ifndef CHATMUX_PROVIDER_ATTACH_H
#define CHATMUX_PROVIDER_ATTACH_H

#include "chatmux/provider/run.h"

#define CM_ATTACH_MAX 32                               /* addresses in one request */
#define CM_ATTACH_ONE_BYTES ((size_t)20 * 1024 * 1024) /* of one */
#define CM_ATTACH_ALL_BYTES ((size_t)50 * 1024 * 1024) /* of one request's together */
#define CM_ATTACH_ONE_MS 20000                         /* for one, each of its redirects anew */
#define CM_ATTACH_ALL_MS 60000
#define CM_ATTACH_REDIRECTS 5

/* Which parts of the conversation: bits of enum cm_part_kind. */
#define CM_ATTACH_IMAGES (1u << CM_PART_IMAGE)
#define CM_ATTACH_FILES (1u << CM_PART_FILE)

struct cm_attached {
    struct cm_str url;              /* as the client wrote it */
    struct cm_str media_type, data; /* base64; in the run's arena */
};

/* In the flow's memory; zeroed is ready. Everything it holds is in the run's arena. */
struct cm_attach {
    unsigned kinds;
    struct cm_attached list[CM_ATTACH_MAX];
    size_t n, next;
    struct cm_str at; /* where the current one is, after redirects */
    unsigned redirects;
    size_t bytes;
    int64_t began_ms; /* Unix */
};

/* In the step that answers START. WAIT: something is being fetched, REPLY and FAILED go to cm_attach_step() until it returns another thing; DONE: nothing
 * is left to fetch; FAIL: *err. */
enum cm_step cm_attach_start(struct cm_run *run, struct cm_attach *a, unsigned kinds,
                             struct cm_err *err);
/* For a platform that takes only some of them: each of these, then cm_attach_fetch() in the place of cm_attach_start(). What was added before stays. */
int cm_attach_add(struct cm_run *run, struct cm_attach *a, const struct cm_part *part,
                  struct cm_err *err);
enum cm_step cm_attach_fetch(struct cm_run *run, struct cm_attach *a, struct cm_err *err);
enum cm_step cm_attach_step(struct cm_run *run, struct cm_attach *a, const struct cm_ev *ev,
                            struct cm_err *err);
/* What was fetched for this part's url; NULL when it has none, or is of another kind. */
const struct cm_attached *cm_attach_find(const struct cm_attach *a, const struct cm_part *part);

/* "image/png" by the first bytes of a picture, sound or document; empty when they are not known. */
struct cm_str cm_media_type_of(struct cm_str bytes);
/* Where a redirect leads: `location` as the answer from `base` wrote it. Empty when it is no http(s) address. */
struct cm_str cm_attach_redirect(struct cm_arena *arena, struct cm_str base,
                                 struct cm_str location);

#endif
