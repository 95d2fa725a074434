/* Who is in charge of a database: the lease, the epoch that fences, and commits nobody heard the end of.

   Three gateways: one and its successor in the same place (an upgrade: they hold the lease under one name), and
   one elsewhere. Between any two lines of one the others may do anything: that is what a freeze is, inside a
   transaction too. The database's clock lets the lease lapse at any moment (LAPSES times), ends the transaction
   of who does nothing (idle_in_transaction_session_timeout), and carries out, or not, a COMMIT whose sender has
   given up: store/postgres (lease.py, store.py).

   -DBUG_EPOCH, _LOCK, _RAISE, _LEASE and _DOUBT leave one safeguard out; each must be found. That somebody takes
   over at all is takeover.pml's; how soon, nobody's: there is no time. */

#ifndef LAPSES
#define LAPSES 2
#endif
#define GATEWAYS 3
#define MOST 5                          /* epochs: who comes after the last one waits for good */

byte holder;                            /* of the lease: a place; 0: nobody yet */
bool lapsed = true;
byte lapses = LAPSES;
byte epoch;
byte locked;                            /* who has the epoch's row, which every write begins with */
byte late;                              /* whose COMMIT is carried out later, or never; it keeps the row */
byte wrote_in[MOST];                    /* by epoch: who wrote in it */
byte epoch_of[4];                       /* what each gateway writes in; 0: nothing */
bool in_doubt[4];                       /* it does not know what became of its commit */
bool gave_up[4];                        /* it has concluded that it was not done */

#define place(id) (id == 3 -> 2 : 1)
#define begin(id) atomic { locked == 0 -> locked = id }
#define end(id) d_step { if :: locked == id -> locked = 0 :: else fi }

inline commit(id) {
    /* The server: rows and epoch are as the transaction saw them, since nobody else had the row. */
    d_step {
        assert(epoch_of[id] == epoch);                              /* who was overtaken writes nothing */
        assert(wrote_in[epoch] == 0 || wrote_in[epoch] == id);      /* one writer in an epoch */
        assert(!gave_up[id]);                                       /* and never behind its back */
        wrote_in[epoch] = id
    }
}

proctype Gateway(byte id) {
claim:
    atomic { lapsed || holder == place(id) -> holder = place(id); lapsed = false };
    atomic { epoch < MOST - 1 && locked == 0 -> locked = id };
#ifndef BUG_LEASE
    /* FOR UPDATE: nobody claims it until this transaction ends. */
    atomic {
        if
        :: locked == id && holder == place(id) -> skip
        :: else -> end(id); goto claim
        fi;
#else
    atomic {
        (true);
#endif
        assert(holder == place(id));                                /* who raises it has the lease */
#ifndef BUG_RAISE
        epoch++;
#else
        if :: epoch == 0 -> epoch++ :: else fi;
#endif
        epoch_of[id] = epoch;
        end(id)
    };
charge:
    do
    :: /* renew */
        atomic {
            if
            :: holder == place(id) -> lapsed = false
            :: else -> epoch_of[id] = 0; goto claim
            fi
        }
    :: /* write */
#ifdef BUG_LOCK
        true;
#else
        begin(id);
#endif
#ifndef BUG_EPOCH
        atomic {
            if
            :: epoch_of[id] == epoch -> skip
            :: else -> end(id); epoch_of[id] = 0; goto claim
            fi
        };
#endif
        if
#ifdef BUG_LOCK
        :: atomic { true -> commit(id) }
#else
        :: atomic { locked == id -> commit(id); end(id) }
        :: locked != id -> skip                                     /* the server has ended it meanwhile */
        :: atomic { locked == id && late == 0 -> late = id; in_doubt[id] = true }
#endif
        fi;
        if
        :: !in_doubt[id] -> skip
        :: in_doubt[id] ->
#ifndef BUG_DOUBT
            begin(id);                                              /* not before its end: it has the row */
            end(id);
#endif
            atomic {
                in_doubt[id] = false;
                if
                :: late == id -> gave_up[id] = true                 /* its mark is not there */
                :: else
                fi
            }
        fi
    od
}

/* The database: its clock, its time-outs, and commits that nobody waits for any more. */
active proctype Database() {
end:
    do
    :: atomic { lapses > 0 && !lapsed && holder -> lapses--; lapsed = true }
    :: atomic { locked && late != locked && lapses > 0 -> lapses--; locked = 0 }
    :: atomic { late -> commit(late); end(late); late = 0 }
    :: atomic { late -> end(late); late = 0 }
    od
}

init { atomic { run Gateway(1); run Gateway(2); run Gateway(3) } }

#ifdef WITNESS
/* Must fail: the one elsewhere can take over and write, and the first one come back to write after it. */
active proctype Witness() { assert(!(wrote_in[1] == 1 && wrote_in[2] == 3 && wrote_in[3] == 1)) }
#endif
