/* What an upstream says may hold what is ours. */
#include "creds_int.h"

#define SECRET_MIN 8 /* bytes: a shorter one could be any word */

/* An upstream may quote what it was sent, or what it knows of others: a text with any of our secrets in it is not passed on. */
void creds_mask(struct cm_gateway *gw, struct cm_err *err)
{
    struct cm_str msg = cm_str_of(err->msg);

    CM_LIST_EACH(&gw->kept, link)
    {
        const struct kept *k = CM_LIST_ITEM(link, struct kept, link);

        if (k->row.secret.n >= SECRET_MIN && cm_str_has(msg, k->row.secret)) {
            cm_fail(err, err->cls,
                    CM_PRI " answered with a text that quotes a credential: it is not shown",
                    CM_ARG(k->row.provider));
            return;
        }
    }
}
