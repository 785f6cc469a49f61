/* What hix.c shares with the files beside it: its tables (hix_models.c), the question (hix_question.c), what the gateway before it kept (hix_seed.c), files (hix_upload.c), what refusals mean
 * (hix_refuse.c), what an account is asked besides (hix_account.c), and what is done after an answer (hix_after.c). */
#ifndef CHATMUX_HIX_INT_H
#define CHATMUX_HIX_INT_H

#include "chatmux/base/enc.h"
#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"
#include "chatmux/codec/sse.h"
#include "chatmux/provider/attach.h"
#include "chatmux/provider/run.h"

#define HIX_SESSION_COOKIE "__Secure-next-auth.session-token"
#define HIX_RATE_LIMIT_S 60            /* when a limit comes without a time */
#define HIX_NO_CREDIT_S (24 * 60 * 60) /* … and when credit has run out */

/* ---- hix_models.c ---- */

enum hix_purse { HIX_STANDARD, HIX_ADVANCED }; /* the second needs an active subscription */

enum { HIX_N_MODELS = 55 };
extern const struct cm_model_row hix_models[HIX_N_MODELS];
extern const struct cm_option hix_options[];
int hix_configure(struct cm_instance *in, struct cm_problems *problems);
int64_t hix_bot(const struct cm_run *run);           /* 0 = none */
size_t hix_question_limit(const struct cm_run *run); /* characters */

static inline struct cm_str hix_option(const struct cm_run *run, const char *name)
{
    return cm_option_value(cm_run_instance(run), name);
}

static inline bool hix_option_bool(const struct cm_run *run, const char *name)
{
    return cm_option_bool(cm_run_instance(run), name);
}

static inline bool hix_continues(const struct cm_run *run)
{
    return cm_str_eq(hix_option(run, "continue"), CM_S("thread")) &&
           !hix_option_bool(run, "delete_chat");
}

/* ---- hix_question.c ---- */

#define HIX_FILES_MAX 10
struct hix_ask {
    struct cm_str question;
    const struct cm_part *files[HIX_FILES_MAX]; /* borrowed from the chat */
    size_t n_files;
};
/* What the platform is to be asked, of the messages from `from` on: as much of the conversation as the bot takes, oldest left out first, and the files of
 * the last question. CM_ERR_BAD_REQUEST, CM_ERR_CONTEXT_LENGTH. */
int hix_make_ask(struct cm_run *run, size_t from, struct hix_ask *out, struct cm_err *err);
/* What the platform has not must not vanish from the request unsaid. */
int hix_check_request(const struct cm_chat *chat, struct cm_err *err);

/* ---- hix_seed.c ---- */

/* Under which name hixai2api kept a conversation with this last question and answer (their `content`): 64 hex digits. */
struct cm_str hix_seed_pair(struct cm_arena *arena, yyjson_val *question, yyjson_val *answer);
bool hix_old_thread(struct cm_arena *arena, const struct cm_chat *chat, struct cm_str *name,
                    size_t *from);

/* ---- hix_aged.c ---- */

/* An answer was given in this chat: it is not old. */
void hix_note_use(struct cm_run *run, struct cm_str chat);
/* One that nobody has used for x.delete_after, in the arena; false: there is none. It is in no list any more; hix_put_back() when it could not go.
 * *stretch: 0, or as the last call of this run left it. */
bool hix_take_aged(struct cm_run *run, struct cm_str *chat, int64_t *stretch);
void hix_put_back(struct cm_run *run, struct cm_str chat, int64_t stretch);

/* ---- hix_upload.c ---- */

struct hix_file_type {
    const char *extension, *type;
};
/* By its first bytes; text_said: the client calls it text. NULL: no kind that the platform takes. */
const struct hix_file_type *hix_file_type(struct cm_str bytes, bool text_said);
/* Asks where to put a file, whose data is base64; FAIL: it cannot be sent (*err). */
enum cm_step hix_sign(struct cm_run *run, struct cm_str chat_id, struct cm_str data,
                      struct cm_str media_type, struct cm_str *bytes,
                      const struct hix_file_type **type, struct cm_err *err);
/* Where, as the platform's reply tells; "" = it does not. */
struct cm_str hix_signed(struct cm_run *run, struct cm_str reply);
enum cm_step hix_put(struct cm_run *run, struct cm_str to, struct cm_str bytes,
                     const struct hix_file_type *type);

/* ---- hix_refuse.c ---- */

enum hix_call { HIX_CALL_CREATE, HIX_CALL_CHAT, HIX_CALL_OTHER };
/* One answer that is not what was asked for. */
struct hix_refusal {
    enum hix_call call;
    int status, retry_after_s,
        challenge_s; /* challenge_s: how long nobody behind our address asks after a challenge */
    struct cm_str body;
};
enum hix_advice {
    HIX_AS_IT_IS,
    HIX_NOT_OURS,    /* the chat belongs to nobody we are: begin another */
    HIX_ASK_SESSION, /* is the account logged in at all? */
    HIX_ASK_CREDIT,  /* how much is left? */
    HIX_DOUBT_CREDIT /* … and is it about credit at all? */
};
/* Fills *err; the advice says what to find out before it is believed. */
enum hix_advice hix_refuse(const struct hix_refusal *r, struct cm_err *err);
/* A frame of the stream, or an error object: CM_ERR_NONE when it tells no failure. */
enum cm_err_class hix_frame_class(yyjson_val *frame);

/* ---- hix_account.c ---- */

int hix_normalize(struct cm_arena *arena, struct cm_str given, struct cm_str *out,
                  struct cm_err *err);

#define HIX_HEADERS_MAX 14
/* The headers of the platform's own calls; `referer` is a path behind the origin. How many there are. */
size_t hix_headers(struct cm_run *run, struct cm_str accept, struct cm_str referer,
                   struct cm_header out[HIX_HEADERS_MAX]);
/* POST of JSON, or GET where body is empty; the reply is small and soon. */
enum cm_step hix_fetch(struct cm_run *run, struct cm_str path, struct cm_str referer,
                       struct cm_str body);

struct hix_credit {
    int64_t left[2]; /* by enum hix_purse */
    bool subscribed;
    int64_t renews_ms; /* Unix; 0 = not told */
};
enum cm_step hix_ask_credit(struct cm_run *run);
/* Reads the reply, tells it with cm_run_quota(). -1: it holds no figures. */
int hix_told_credit(struct cm_run *run, const struct cm_ev *ev, struct hix_credit *out);

enum cm_step hix_ask_session(struct cm_run *run);
/* 1: logged in (a renewed cookie is told with cm_run_token() when `renew`), 0: not, -1: neither was said (*err). */
int hix_told_session(struct cm_run *run, const struct cm_ev *ev, bool renew, struct cm_err *err);

struct hix_account {
    enum hix_account_state { HIX_ACCOUNT_SESSION, HIX_ACCOUNT_CREDIT, HIX_ACCOUNT_AGED } state;
    struct cm_str
        chat; /* AGED: the one that is being deleted, and of which stretch of time it is */
    int64_t stretch;
    int n_deleted;
};
const char *hix_account_state_name(const void *state);
enum cm_step hix_refresh_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err);
enum cm_step hix_probe_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err);

/* ---- hix_links.c ---- */

/* Links in a searched answer's text, as annotations. */
void hix_tell_links(struct cm_run *run, struct cm_str text);

/* ---- hix.c: an answer ---- */

#define HIX_STATES(X)                                                                              \
    X(FETCH) X(CREATE) X(SIGN) X(PUT) X(TALK) X(REFUSED) X(SESSION) X(CREDIT) X(DELETE) X(TALLY)
enum hix_state {
#define X(name) HIX_##name,
    HIX_STATES(X)
#undef X
};

struct hix {
    enum hix_state state;
    struct hix_ask ask;
    struct cm_str chat_id, model; /* model: percent-encoded, for the referer */
    bool created, threaded;       /* by this run; of an earlier answer */
    bool alone;                   /* as in cm_thread */
    bool begun_anew;              /* the earlier chat was not ours any more */

    struct cm_attach attach; /* FETCH: files that the client only points at */
    size_t n_put;            /* files that are where they belong */
    struct cm_str urls[HIX_FILES_MAX], bytes;
    const struct hix_file_type *type;

    struct cm_sse sse;
    struct cm_buf body; /* REFUSED: what came so far */
    struct hix_refusal refusal;
    struct cm_buf cursor;   /* id of the last event */
    struct cm_buf searched; /* the text of an answer whose links are to be told */
    bool tells_links;
    struct cm_str detail_id; /* of the answer, JSON; "" = not told */
    bool resumed;
    struct cm_usage usage;
    bool said, done; /* any text came; [DONE] came */

    struct cm_err why; /* cls NONE = it has not failed */
    bool credit_asked, credit_doubted;
    struct cm_str deleting; /* DELETE: which one */
    unsigned n_deleted;     /* of earlier ones */
    bool left;              /* the client has */
};

/* ---- hix_after.c ---- */

enum cm_step hix_delete_chat(struct cm_run *run, struct cm_str chat);
bool hix_is_deleted(const struct cm_ev *ev);
/* The id of the chat that createChat has made; "" = it has not. */
struct cm_str hix_read_chat_id(struct cm_run *run, const struct cm_ev *ev);
/* The answer is with its client, or has failed (h->why): what is left to do for the account. */
enum cm_step hix_wind_up(struct cm_run *run, struct hix *h, struct cm_err *err);
/* It has failed: finds out how much is left if that is why, deletes what was made, and fails. */
enum cm_step hix_fail(struct cm_run *run, struct hix *h, const struct cm_err *why,
                      struct cm_err *err);
/* The client has left. */
enum cm_step hix_leave(struct cm_run *run, struct hix *h, const struct cm_ev *ev);
/* Replies in the states DELETE, CREDIT, SESSION. */
enum cm_step hix_deleted(struct cm_run *run, struct hix *h, const struct cm_ev *ev,
                         struct cm_err *err);
enum cm_step hix_credit_answered(struct cm_run *run, struct hix *h, const struct cm_ev *ev,
                                 struct cm_err *err);
enum cm_step hix_session_answered(struct cm_run *run, struct hix *h, const struct cm_ev *ev,
                                  struct cm_err *err);

#endif
