/* That somebody is in charge of a database again, and can write: what lease.pml says nobody does wrong, somebody
   does.

   Two gateways on two machines. A process dies at any moment (KILLS), amid a transaction too; its service
   manager starts it again, or its machine is gone for good. LAPSES times somebody is slower than the database
   bears: a lease lapses under a holder that lives, a transaction is ended, a COMMIT is not heard of and carried
   out later, or never. From then on everybody gets on in time: a lease lapses only where nobody renews it
   (LEASE_S), a row is taken only from who is dead (store.py, FREE).

   -DBUG_LAPSE, _FREE, _AGAIN and _LATE leave one of what is relied on out; each must be found. */

#ifndef LAPSES
#define LAPSES 2
#endif
#ifndef KILLS
#define KILLS 2
#endif

byte holder;                            /* of the lease; 0: nobody yet */
bool lapsed = true;
byte lapses = LAPSES;
byte kills = KILLS;
byte epoch;
byte locked;                            /* who has the epoch's row */
bool orphaned;                          /* the process that had it is dead, and its session is not */
byte late;                              /* whose COMMIT is carried out later, or never; it keeps the row */
bool alive[3] = true;
bool gone[3];                           /* with its machine */
bool renews[3];                         /* it has claimed the lease, and has not found out that it lost it */
byte epoch_of[3];                       /* what each gateway writes in; 0: nothing */
bool turn;                              /* the other with each commit */
bool tick;

#define leads(id) (alive[id] && holder == id && epoch_of[id] == epoch && epoch > 0)
#define nobody_left (gone[1] && gone[2])
#define end(id) locked = (locked == id && late != id -> 0 : locked)
#define lose(id) renews[id] = false; epoch_of[id] = 0

/* Waits for the row. Whoever waits in vain ends the session of a dead process, and comes again. */
inline begin(id, again) {
    if
    :: atomic { locked == 0 -> locked = id }
#ifndef BUG_FREE
    :: atomic { orphaned && !late -> locked = 0; orphaned = false; goto again }
#endif
    fi
}

proctype Gateway(byte id) {
    bool in_doubt;
start:
    {
        skip;
claim:
        atomic { lapsed || holder == id -> holder = id; lapsed = false; renews[id] = true };
        begin(id, claim);
        atomic {
            if
            :: locked != id -> goto claim                           /* the server has ended it meanwhile */
            :: locked == id && holder != id -> end(id); lose(id); goto claim
            :: else -> epoch++; epoch_of[id] = epoch; end(id)
            fi
        };
charge:
        atomic {
            if
            :: holder == id -> lapsed = false                       /* renew */
            :: else -> lose(id); goto again
            fi
        };
        begin(id, charge);
        atomic {
            if
            :: locked == id && epoch_of[id] != epoch -> end(id); lose(id); goto again
            :: else
            fi
        };
        if
        :: atomic { locked == id -> turn = !turn; end(id) }
        :: atomic { locked == id && lapses > 0 -> lapses--; late = id; in_doubt = true }
        :: locked != id -> skip
        fi;
        if
        :: in_doubt ->
settle:
            skip;
            begin(id, settle);                                      /* not before its end: it has the row */
            atomic { end(id); in_doubt = false }
        :: else
        fi;
        goto charge;
again:
#ifdef BUG_AGAIN
        false;                                                      /* who was overtaken claims nothing more */
#endif
        goto claim
    } unless { !alive[id] };
    in_doubt = false;
    if
    :: atomic { alive[id] = true; goto start }
    :: gone[id] = true
    fi
}

/* The database: its clock, its time-outs, and commits that nobody waits for any more. */
active proctype Database() {
    do
#ifndef BUG_LAPSE
    :: atomic { holder && !lapsed && !renews[holder] -> lapsed = true }
#endif
    :: atomic { holder && !lapsed && lapses > 0 -> lapses--; lapsed = true }
    :: atomic { locked && !late && lapses > 0 -> lapses--; locked = 0; orphaned = false }
#ifndef BUG_LATE
    :: atomic { late -> turn = !turn; locked = 0; late = 0; orphaned = false }
    :: atomic { late -> locked = 0; late = 0; orphaned = false }
#endif
    od
}

active proctype Killer() {
    byte id;
    do
    :: atomic { kills > 0 -> kills--; if :: id = 1 :: id = 2 fi;
                if :: alive[id] -> alive[id] = false; lose(id); orphaned = orphaned || locked == id :: else fi }
    :: true -> break
    od
}

/* Time goes on where nobody does anything: told to be fair, Spin overlooks a run in which nobody can go on. */
active proctype Time() { do :: tick = !tick od }

init { atomic { run Gateway(1); run Gateway(2) } }

ltl led_again { <>[] (leads(1) || leads(2) || nobody_left) }
ltl written_again { <>[] nobody_left || ([]<> turn && []<> !turn) }
