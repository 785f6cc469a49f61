/* What chat.deepseek.com answers, for scripted replies. */
#ifndef CHATMUX_TEST_DEEPSEEK_REPLIES_H
#define CHATMUX_TEST_DEEPSEEK_REPLIES_H

#define STREAM "text/event-stream; charset=utf-8"
#define BIZ(data)                                                                                  \
    "{\"code\":0,\"msg\":\"\",\"data\":{\"biz_code\":0,\"biz_msg\":\"\",\"biz_data\":" data "}}"
#define BIZ_REFUSED(code, msg)                                                                     \
    "{\"code\":0,\"msg\":\"\",\"data\":{\"biz_code\":" code ",\"biz_msg\":\"" msg                  \
    "\",\"biz_data\":null}}"
#define CODE(number, msg) "{\"code\":" number ",\"msg\":\"" msg "\",\"data\":null}"
#define CREATED BIZ("{\"id\":\"session-1\"}")
#define DONE BIZ("null")

/* The answer is 0; without the path that it is for. */
#define CHALLENGE_OF(path, difficulty)                                                             \
    BIZ("{\"challenge\":{\"algorithm\":\"DeepSeekHashV1\",\"challenge\":"                          \
        "\"f53d222177963ac3906802cae8c20ff3571b01b2c7797f30b8747749c257b849\","                    \
        "\"salt\":\"00112233445566778899\",\"signature\":\"sig\",\"difficulty\":" difficulty       \
        ",\"expire_at\":1800000000000,\"expire_after\":300000,\"target_path\":\"" path "\"}}")
#define CHALLENGE CHALLENGE_OF("/api/v0/chat/completion", "1000")
#define UNSOLVABLE                                                                                 \
    BIZ("{\"challenge\":{\"algorithm\":\"DeepSeekHashV1\",\"challenge\":"                          \
        "\"053d222177963ac3906802cae8c20ff3571b01b2c7797f30b8747749c257b849\","                    \
        "\"salt\":\"00112233445566778899\",\"signature\":\"sig\",\"difficulty\":50,"               \
        "\"expire_at\":1800000000000,\"target_path\":\"/api/v0/chat/completion\"}}")
/* {"algorithm":"DeepSeekHashV1","challenge":"f53d…","salt":"0011…","answer":0,"signature":"sig","target_path":"/api/v0/chat/completion"} */
#define PROOF                                                                                      \
    "eyJhbGdvcml0aG0iOiJEZWVwU2Vla0hhc2hWMSIsImNoYWxsZW5nZSI6ImY1M2QyMjIxNzc5NjNhYzM5"             \
    "MDY4MDJjYWU4YzIwZmYzNTcxYjAxYjJjNzc5N2YzMGI4NzQ3NzQ5YzI1N2I4NDkiLCJzYWx0IjoiMDAx"             \
    "MTIyMzM0NDU1NjY3Nzg4OTkiLCJhbnN3ZXIiOjAsInNpZ25hdHVyZSI6InNpZyIsInRhcmdldF9wYXRo"             \
    "IjoiL2FwaS92MC9jaGF0L2NvbXBsZXRpb24ifQ=="

#define DATA(json) "data: " json "\n\n"
#define EVENT(name, json) "event: " name "\n" DATA(json)
#define READY EVENT("ready", "{\"request_message_id\":1,\"response_message_id\":2}")
#define FRAGMENT(type, text)                                                                       \
    DATA("{\"p\":\"response/fragments\",\"o\":\"APPEND\",\"v\":[{\"type\":\"" type                 \
         "\",\"content\":\"" text "\"}]}")
#define MORE(text) DATA("{\"v\":\"" text "\"}")
#define STATUS(word) DATA("{\"p\":\"response/status\",\"o\":\"SET\",\"v\":\"" word "\"}")
#define FINISHED STATUS("FINISHED")
#define ANSWER READY FRAGMENT("RESPONSE", "Blue") FINISHED EVENT("close", "{}")

#endif
