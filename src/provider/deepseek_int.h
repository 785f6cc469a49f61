/* What the files of the deepseek adapter share. Loop thread only, but for the hash and deepseek_search_work(). */
#ifndef CHATMUX_DEEPSEEK_INT_H
#define CHATMUX_DEEPSEEK_INT_H

#include "chatmux/codec/json.h"
#include "chatmux/codec/sse.h"
#include "chatmux/provider/attach.h"
#include "chatmux/provider/run.h"

/* ---- deepseek_hash.c: the hash of the proof of work. Any thread ---- */

#define DEEPSEEK_HASH_BYTES 32

/* Keccak's rounds first … 23 on lanes A[x + 5y]; from 0 on it is Keccak-f[1600]. */
void deepseek_permute(uint64_t lanes[25], unsigned first);
void deepseek_hash(struct cm_str message, unsigned char out[DEEPSEEK_HASH_BYTES]);
/* The number n below `limit` for which the hash of `prefix` with n in decimal behind it is `want`; -1: there is none, or `cancelled` (may be NULL) became
 * true, which is looked at every 0.3 ms or so. */
int64_t deepseek_solve(struct cm_str prefix, const unsigned char want[DEEPSEEK_HASH_BYTES],
                       int64_t limit, const atomic_bool *cancelled);

/* ---- deepseek_models.c ---- */

#define DEEPSEEK_MODELS 6
#define DEEPSEEK_FEATURES (CM_MODEL_SEARCH | CM_MODEL_THINKING | CM_MODEL_SILENT | CM_MODEL_FOLD)
extern const struct cm_model_row deepseek_models[DEEPSEEK_MODELS];
extern const struct cm_option deepseek_options[];

/* Of the request that is answered. */
bool deepseek_wants_thinking(const struct cm_run *run);
struct cm_str deepseek_model_type(const struct cm_run *run); /* "" = null */

/* ---- deepseek_proof.c: challenges and their answers ---- */

struct deepseek_challenge {
    struct cm_str algorithm, challenge, salt, signature, target_path;
    int64_t tries;        /* the answer is below it */
    int64_t expire_at_ms; /* as the platform's clock has it; part of the puzzle */
    int64_t lives_ms;     /* from now on */
    unsigned char want[DEEPSEEK_HASH_BYTES];
};
/* Of biz_data.challenge. 1: broken, another one may be better. -1 and CM_ERR_UPSTREAM_DOWN: of a kind that is not known here, or more than max_tries. */
int deepseek_challenge_read(struct cm_arena *arena, yyjson_val *v, int64_t now_unix_ms,
                            int64_t max_tries, struct deepseek_challenge *out, struct cm_err *err);
/* A search that a thread can do: it owns what it needs. answer -1 = there is none. */
struct deepseek_search {
    struct cm_buf prefix;
    unsigned char want[DEEPSEEK_HASH_BYTES];
    int64_t tries, answer;
};
struct deepseek_search *deepseek_search_new(const struct deepseek_challenge *c);
void deepseek_search_work(void *search, const atomic_bool *cancelled);
void deepseek_search_free(void *search);
/* ---- deepseek_call.c: accounts, and what all calls have in common ---- */

/* What a credential is made of; "" = not given. */
struct deepseek_account {
    struct cm_str token; /* the user token */
    struct cm_str cookie;
    struct cm_str email, mobile, area_code, password;
};
/* Keeps a secret as a bare token or as a JSON object with the members above. */
int deepseek_normalize(struct cm_arena *arena, struct cm_str given, struct cm_str *out,
                       struct cm_err *err);
void deepseek_account(struct cm_run *run, struct deepseek_account *out);
/* What Authorization says: what refresh or login brought, else the user token; "" = none yet. */
struct cm_str deepseek_bearer(struct cm_run *run, const struct deepseek_account *account);

struct deepseek_ask {
    const char *method;      /* NULL = POST */
    const char *path_option; /* "create_path" */
    struct cm_str query;     /* "?a=b" */
    struct cm_str body;      /* JSON, unless content_type says otherwise; lives in the arena */
    struct cm_str content_type;
    struct cm_str proof;                           /* "" = none is needed */
    struct cm_str bearer;                          /* "" = deepseek_bearer() */
    struct cm_str file_size, thinking, model_type; /* of uploads */
    int64_t timeout_ms;
    bool anonymous; /* login: there is no token yet */
    bool lands;     /* as in cm_call */
};
enum cm_step deepseek_fetch(struct cm_run *run, const struct deepseek_account *account,
                            const struct deepseek_ask *ask);
enum cm_step deepseek_stream(struct cm_run *run, const struct deepseek_account *account,
                             const struct deepseek_ask *ask);
struct cm_str deepseek_option(const struct cm_run *run, const char *name);
bool deepseek_option_is(const struct cm_run *run, const char *name, const char *value);
/* {"chat_session_id":…}, with "message_id" when it is not 0; in the arena. */
struct cm_str deepseek_session_body(struct cm_run *run, struct cm_str session, int64_t message_id);

/* ---- deepseek_reply.c: what an answer that is no stream says ---- */

struct deepseek_reply {
    int status;
    yyjson_doc *doc; /* NULL: no JSON. The caller's to free */
    yyjson_val *biz; /* data.biz_data; NULL when there is none */
    int64_t code, biz_code;
    struct cm_str msg; /* biz_msg, else msg; in the document */
    int retry_after_s;
    enum cm_err_class cls; /* NONE: it succeeded */
    bool bad_proof;        /* the proof of work was refused */
    bool muted;            /* retry_after_s: for how long, where it is told */
    bool bad_session;      /* the conversation that was named is of no more use */
};
/* A muted account has no class of its own where it was only asked about. */
void deepseek_judge_mute(struct deepseek_reply *reply);
/* From REPLY. */
void deepseek_reply_of(struct cm_run *run, const struct cm_ev *ev, struct deepseek_reply *out);
void deepseek_reply_read(struct cm_run *run, int status, const struct cm_header *headers, size_t n,
                         struct cm_str body, struct deepseek_reply *out);
/* Fills *err from a reply that is not a success; `call` names what was asked for. */
enum cm_step deepseek_refuse(const struct deepseek_reply *reply, const char *call,
                             struct cm_err *err);
/* Class of words that come inside of a stream: finish_reason, then the text that people read. *rest_s: how long the account rests, 0 = as the provider
 * does. */
enum cm_err_class deepseek_words_class(struct cm_str reason, struct cm_str text, int *rest_s);
/* Seconds until then; 0 = not told or over. Unix seconds or milliseconds, as a number. */
int deepseek_until_s(yyjson_val *when, int64_t now_unix_ms);

/* ---- deepseek_proof.c, again: from a challenge to a header ---- */

struct deepseek_prover {
    struct deepseek_challenge challenge;
    struct deepseek_search *search; /* a thread's while `computing` */
    bool computing;
};
/* For calls of `path_option`: fetches a challenge. */
enum cm_step deepseek_ask_challenge(struct cm_run *run, const struct deepseek_account *account,
                                    const char *path_option, int64_t timeout_ms);
/* As deepseek_challenge_read(), of the reply to it. */
int deepseek_challenged(struct cm_run *run, struct deepseek_prover *p,
                        const struct deepseek_reply *reply, struct cm_err *err);
enum cm_step deepseek_prove(struct cm_run *run, struct deepseek_prover *p);
/* After COMPUTED: the header's value; empty when there is no solution. */
struct cm_str deepseek_proved(struct cm_run *run, struct deepseek_prover *p);
void deepseek_prover_clear(struct deepseek_prover *p);

/* The header's value. */
struct cm_str deepseek_proof(struct cm_arena *arena, const struct deepseek_challenge *c,
                             int64_t answer);

/* ---- deepseek_files.c: pictures and files of a request ---- */

#define DEEPSEEK_FILES_MAX 50

struct deepseek_file {
    const struct cm_part *part;
    struct cm_str id; /* the platform's; "" = not yet */
    bool ready, forked;
};
struct deepseek_files {
    enum deepseek_files_state {
        DEEPSEEK_FILES_FETCH, /* what is behind addresses */
        DEEPSEEK_FILES_CHALLENGE,
        DEEPSEEK_FILES_PROVE, /* and take the file out of its base64 */
        DEEPSEEK_FILES_UPLOAD,
        DEEPSEEK_FILES_REST,
        DEEPSEEK_FILES_POLL,
        DEEPSEEK_FILES_FORK
    } state;
    const struct deepseek_account *account;
    struct cm_attach attach;
    struct cm_str model_type;
    bool thinking;
    struct deepseek_file list[DEEPSEEK_FILES_MAX];
    size_t n, next; /* next: the one that is uploaded or forked */
    struct deepseek_challenge challenge;
    struct deepseek_upload *upload; /* a thread's while `computing` */
    bool computing, challenged, forked;
    int64_t began_ms; /* Unix: when the last one was uploaded */
};
/* Those of the messages from `from` on. WAIT: all events go to deepseek_files_step() until it returns another thing. */
enum cm_step deepseek_files_start(struct cm_run *run, struct deepseek_files *f,
                                  const struct deepseek_account *account, size_t from,
                                  struct cm_err *err);
enum cm_step deepseek_files_step(struct cm_run *run, struct deepseek_files *f,
                                 const struct cm_ev *ev, struct cm_err *err);
/* ["id","id"] */
void deepseek_files_put_ids(const struct deepseek_files *f, struct cm_buf *out);
void deepseek_files_clear(struct deepseek_files *f);

/* ---- deepseek_account.c ---- */

enum cm_step deepseek_refresh_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err);
enum cm_step deepseek_login_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err);

struct deepseek_probe {
    enum deepseek_probe_state {
        DEEPSEEK_PROBE_LOGIN,
        DEEPSEEK_PROBE_CURRENT,
        DEEPSEEK_PROBE_QUOTA
    } state;
    struct deepseek_account account;
};
enum cm_step deepseek_probe_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err);

/* ---- deepseek_stream.c: the answer ---- */

#define DEEPSEEK_STATUSES(X)                                                                       \
    X(WIP)                                                                                         \
    X(FINISHED)                                                                                    \
    X(INCOMPLETE) X(CONTENT_FILTER) X(CONTEXT_LENGTH_EXCEEDED) X(CONTENT_TOO_LONG) X(CANCELLED)
enum deepseek_status {
#define X(name) DEEPSEEK_##name,
    DEEPSEEK_STATUSES(X)
#undef X
};
enum deepseek_marks { DEEPSEEK_MARKS_ANNOTATIONS, DEEPSEEK_MARKS_LINKS, DEEPSEEK_MARKS_KEPT };

#define DEEPSEEK_PATH_MAX 120
#define DEEPSEEK_OPENING_MAX 24
#define DEEPSEEK_MARK_MAX 40

/* One growing text of the answer: what has gone out of it. */
struct deepseek_piece {
    enum deepseek_kind { DEEPSEEK_OTHER, DEEPSEEK_THINK, DEEPSEEK_TEXT } kind;
    size_t said;                        /* bytes */
    char opening[DEEPSEEK_OPENING_MAX]; /* the first of them */
};
struct deepseek_result { /* of a search; slices in the arena */
    struct cm_str url, title;
    int64_t cite; /* its number in the text; 0 = none was told */
    int64_t from,
        to; /* characters of the text where it is first cited; both 0 = nowhere, or the mark was taken out */
    bool cited;
};

/* In the flow's memory; deepseek_stream_init() makes it ready. */
struct deepseek_stream {
    struct cm_run *run;
    struct cm_sse sse;
    enum deepseek_marks marks;
    char path[DEEPSEEK_PATH_MAX];  /* of the patch before; "" = none yet, or not one of ours */
    struct deepseek_piece *pieces; /* the fragments; in the arena */
    size_t n_pieces, cap_pieces;
    struct deepseek_piece text, thinking;  /* of the older generations, which have no fragments */
    struct deepseek_result *results;       /* in the arena */
    size_t n_results, cap_results, newest; /* newest: where the last list begins */
    char mark[DEEPSEEK_MARK_MAX];          /* the beginning of what may become a citation mark */
    size_t n_mark;
    int64_t chars; /* of text that went out */
    enum deepseek_status status, quasi_status;
    int64_t message_id;                   /* of the answer; 0 = not told */
    int64_t tokens;                       /* of the whole conversation so far; 0 = not told */
    int64_t out_text, out_reasoning;      /* estimated tokens */
    bool auto_continue, finished, closed; /* the last two: events of these names came */
    bool said;                            /* text or reasoning went out */
    bool bad_proof, bad_session;          /* with a failure: as in deepseek_reply */
};

void deepseek_stream_init(struct deepseek_stream *s, struct cm_run *run, enum deepseek_marks marks);
void deepseek_stream_clear(struct deepseek_stream *s);
/* Another stream goes on with the same answer. */
void deepseek_stream_again(struct deepseek_stream *s);
/* -1: the stream tells a failure, or is none. */
int deepseek_stream_feed(struct deepseek_stream *s, struct cm_str bytes, struct cm_err *err);
int deepseek_stream_end(struct deepseek_stream *s, struct cm_err *err); /* no more bytes */
/* The answer is whole: what was held back of its text, then its citations. */
void deepseek_stream_flush(struct deepseek_stream *s);

/* ---- deepseek_prompt.c ---- */

enum deepseek_style { DEEPSEEK_STYLE_MARKERS, DEEPSEEK_STYLE_BRACKETS };
/* Messages from `from` on as one text. */
struct cm_str deepseek_prompt(struct cm_arena *arena, const struct cm_chat *chat, size_t from,
                              enum deepseek_style style);

/* ---- deepseek.c: the flow of an answer ---- */

#define DEEPSEEK_STATES(X)                                                                         \
    X(FILES)                                                                                       \
    X(CREATE)                                                                                      \
    X(CHALLENGE)                                                                                   \
    X(PROVE)                                                                                       \
    X(TALK)                                                                                        \
    X(REFUSED) X(MUTED) X(TAIL) X(STOPPING) X(UNDO) X(DELETE) X(AHEAD) X(AHEAD_PROVE)
enum deepseek_state {
#define X(name) DEEPSEEK_DO_##name,
    DEEPSEEK_STATES(X)
#undef X
};

#define DEEPSEEK_TIDY_MS 5000            /* for one call that the client does not wait for */
#define DEEPSEEK_PROOF_KEY CM_S("proof") /* remembered for the account's next question */

enum deepseek_conversations { DEEPSEEK_CONTINUE, DEEPSEEK_NEW, DEEPSEEK_DELETE };

struct deepseek {
    enum deepseek_state state;
    struct deepseek_account account;
    enum deepseek_conversations conversations;
    struct cm_str prompt, session, proof;
    int64_t parent; /* message that the question answers; 0 = none */
    bool thinking, searching;
    struct cm_str model_type;
    bool own;      /* the conversation was made by this run */
    bool threaded; /* it goes on */
    bool alone;    /* as in cm_thread */
    bool talked;   /* the platform took the question */
    bool leaving;
    struct deepseek_stream stream;
    unsigned rounds; /* continued so often */
    unsigned challenges;
    struct deepseek_prover prover;
    struct deepseek_files files;
    struct cm_str deleting; /* DELETE, UNDO: which one */
    unsigned deleted;
    struct cm_buf body; /* REFUSED: what came so far */
    int status;
    struct cm_header *headers;
    size_t n_headers;
    struct cm_err failure; /* UNDO, MUTED: what is told in the end */
    struct cm_usage usage;
};

/* The challenge is for the question (CHALLENGE) or the next one (AHEAD). */
enum cm_step deepseek_flow_challenge(struct cm_run *run, struct deepseek *d,
                                     enum deepseek_state state);
enum cm_step deepseek_flow_prove(struct cm_run *run, struct deepseek *d, enum deepseek_state state);

/* ---- deepseek_question.c ---- */

/* What the platform has not must not vanish from the request unsaid. */
int deepseek_check_request(const struct cm_chat *chat, struct cm_err *err);
enum deepseek_conversations deepseek_conversations(const struct cm_run *run);
enum deepseek_marks deepseek_marks(const struct cm_run *run);
/* Fills session, parent, threaded and alone, and *from = the first message to be sent. */
int deepseek_find_thread(struct cm_run *run, struct deepseek *d, size_t *from, struct cm_err *err);
/* By which the conversation is found when it goes on after this answer. */
struct cm_str deepseek_thread_value(struct cm_run *run, const struct deepseek *d);
/* Fills prompt and usage. */
int deepseek_make_prompt(struct cm_run *run, struct deepseek *d, size_t from, struct cm_err *err);
/* The body of chat_path. */
struct cm_str deepseek_question(struct cm_run *run, const struct deepseek *d);

/* ---- deepseek_after.c: what is done when the answer is there, when it failed and when the client leaves ---- */

/* *err is told in the end; before, a conversation that came to nothing is deleted. */
enum cm_step deepseek_fail(struct cm_run *run, struct deepseek *d, struct cm_err *err);
enum cm_step deepseek_undone(struct cm_run *run, struct deepseek *d, const struct cm_ev *ev,
                             struct cm_err *err);
/* Whether anything is to be done after the answer. */
bool deepseek_wants_more(struct cm_run *run, const struct deepseek *d);
/* The stream has ended, after cm_run_answered(). */
enum cm_step deepseek_after(struct cm_run *run, struct deepseek *d);
/* States DELETE, AHEAD, AHEAD_PROVE, STOPPING. */
enum cm_step deepseek_after_step(struct cm_run *run, struct deepseek *d, const struct cm_ev *ev);
enum cm_step deepseek_leave(struct cm_run *run, struct deepseek *d, const struct cm_ev *ev);
/* The id of what create_path made; empty when there is none. */
struct cm_str deepseek_session_of(struct cm_run *run, const struct deepseek_reply *reply);

#endif
