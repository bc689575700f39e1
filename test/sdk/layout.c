/* SPDX-License-Identifier: Apache-2.0
 * Prints where the header puts the record's fields, as JSON, and takes part in the compile tests. */
#include "otherworld.h"
#include "otherworld.h"
#include <stdio.h>

#define FIELD(name) printf("\"" #name "\":%u,", (unsigned)offsetof(struct otherworld_record, name))
#define INCIDENT(name) printf("\"" #name "\":%u,", (unsigned)offsetof(struct otherworld_record, incident.name))

static int procedure(void *argument) {
  (void)argument;
  return OTHERWORLD_CONTINUE;
}

int main(void) {
  int registered = otherworld_register(procedure, NULL);
  const struct otherworld_record *record = otherworld_record_;
  printf("{");
  FIELD(version);
  FIELD(size);
  FIELD(delivery);
  FIELD(flags);
  FIELD(signal);
  FIELD(time_limit_milliseconds);
  FIELD(entry);
  FIELD(argument);
  FIELD(stack_base);
  FIELD(stack_size);
  FIELD(restorer);
  FIELD(pid);
  FIELD(crc);
  INCIDENT(state);
  INCIDENT(resurrections);
  INCIDENT(panic_time_nanoseconds);
  INCIDENT(frame);
  INCIDENT(item_count);
  INCIDENT(items_omitted);
  INCIDENT(exit_status);
  INCIDENT(id);
  INCIDENT(interrupted_syscall);
  INCIDENT(restrictions);
  INCIDENT(items);
  printf("\"item\":%u,\"what\":%u,", (unsigned)sizeof(struct otherworld_item),
         (unsigned)offsetof(struct otherworld_item, what));
  printf("\"record\":%u,\"registered\":%d,\"valid\":%d,", (unsigned)sizeof(struct otherworld_record), registered,
         record != NULL && record->magic == OTHERWORLD_MAGIC && otherworld_last_incident() == NULL);
  otherworld_continue();
  otherworld_unregister();
  printf("\"gone\":%d,\"lost\":%d,\"may\":%d}\n", otherworld_record_ == NULL, otherworld_is_lost(0),
         otherworld_may_continue());
  return 0;
}
