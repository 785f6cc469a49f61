/* Pictures in genspark's messages (protocol notes, section 6). */
#include "genspark_int.h"

static bool is_picture(const struct cm_part *part)
{
    return part->kind == CM_PART_IMAGE && part->data.n > 0;
}

void genspark_put_content(struct cm_buf *out, struct cm_run *run, const struct genspark *g,
                          struct cm_str text, const struct cm_part *parts, size_t n)
{
    bool any = false;

    (void)run;
    (void)g;
    for (size_t i = 0; i < n; i++) {
        if (!is_picture(&parts[i]))
            continue;
        /* the site's own client always says jpeg */
        cm_buf_append(out, any ? CM_S(",") : CM_S("["));
        cm_buf_append(out, CM_S("{\"type\":\"image_url\",\"image_url\":{\"url\":"
                                "\"data:image/jpeg;base64,"));
        cm_buf_append(out, parts[i].data);
        cm_buf_append(out, CM_S("\"}}"));
        any = true;
    }
    if (any && text.n > 0)
        cm_buf_append(out, CM_S(",{\"type\":\"text\",\"text\":"));
    if (!any || text.n > 0)
        cm_json_put_str(out, text);
    if (any)
        cm_buf_append(out, text.n > 0 ? CM_S("}]") : CM_S("]"));
}
