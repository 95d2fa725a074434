/* The handover of one listening socket, of the lock and of the epoch, from an old control to a new one.

   Processes die at any moment: one of them, whichever (KILLS). A socket lives as long as some process holds a
   descriptor of it, or one is under way in a message; the last to let go resets who waits in it. Beside the
   orderly upgrade (Offer, Ready, Commit, Taken: control/processes/upgrade.py) there is the service manager,
   which starts a control where none is alive; that one takes the socket from the orphan's HELLO.

   -DBUG_CLOSE, _QUIESCE, _EPOCH, _BACK and _TAKEN leave one safeguard out; each must be found. */

#ifndef KILLS
#define KILLS 1
#endif

mtype = { offer, ready, commit, taken };
chan down = [2] of { mtype };
chan up = [2] of { mtype };

bool alive_old = true, alive_new, alive_worker = true, alive_worker_new;
bool held_old = true, held_new, held_worker = true, held_worker_new;
bool accepts = true, accepts_new;       /* the old control's worker, the new one's */
bool locked_old = true, locked_new;
bool writes_old = true, writes_new;     /* whether its loops run */
bool orderly;                           /* the old one left by itself */
bool offered;                           /* a descriptor is on its way */
bool killed_in_charge;
byte epoch = 1, epoch_old = 1, epoch_new = 0;
byte kills = KILLS;
bool tick;

#define held (held_old || held_new || held_worker || held_worker_new || offered)
#define leads_old (alive_old && writes_old && epoch_old == epoch)
#define leads_new (alive_new && writes_new && epoch_new == epoch)
#define served ((accepts && alive_worker) || (accepts_new && alive_worker_new))

active proctype Old() {
    {
        /* The new control is started beside us. */
        atomic { alive_new = true; run New() }
#ifdef BUG_CLOSE
        atomic { offered = true; held_old = false; down!offer }
#else
        atomic { offered = true; down!offer }
#endif
        if
        :: up?ready -> skip
        :: !alive_new -> goto alone
        fi;
#ifndef BUG_QUIESCE
        writes_old = false;                      /* no write of ours from here on */
#endif
        down!commit;
        if
        :: up?taken -> skip
#ifndef BUG_BACK
        :: !alive_new && empty(up) -> goto back
#endif
        fi;
        atomic { orderly = true; held_old = false; locked_old = false; alive_old = false };
        goto done;
back:
        /* It may have raised the epoch before it died. */
        if
#ifdef BUG_EPOCH
        :: atomic { epoch != epoch_old -> skip }
#else
        :: atomic { epoch != epoch_old -> epoch = epoch + 1; epoch_old = epoch }
#endif
        :: atomic { epoch == epoch_old -> skip }
        fi;
        writes_old = true;
alone:
        /* In charge alone: a worker that dies is replaced on the same socket. */
        do
        :: atomic { !alive_worker -> alive_worker = true; held_worker = true; accepts = true }
        od;
done:
        skip
    } unless { !alive_old }
}

proctype New() {
    {
        if
        :: atomic { down?offer -> held_new = true; offered = false }
        :: !alive_old && empty(down) -> goto adopt
        fi;
        atomic { alive_worker_new = true; held_worker_new = true };   /* idle: it accepts nothing yet */
        up!ready;
        if
        :: down?commit -> locked_new = true
        :: !alive_old && empty(down) -> skip
        fi;
        goto take;
adopt:
        /* The orphan brings the socket; without one there is nothing left to reset. */
        if
        :: atomic { alive_worker -> held_new = true }
        :: !alive_worker -> held_new = true
        fi;
        atomic { alive_worker_new = true; held_worker_new = true };
take:
        atomic { (locked_new || !locked_old) -> locked_new = true };
        atomic { epoch = epoch + 1; epoch_new = epoch };
        writes_new = true;
        if
        :: atomic { alive_worker_new -> accepts_new = true }
        :: atomic { !alive_worker_new -> alive_worker_new = true; held_worker_new = true; accepts_new = true }
        fi;
#ifndef BUG_TAKEN
        up!taken;
#endif
        /* Ours accept: now the orphan drains. */
        atomic { accepts = false; held_worker = false; alive_worker = false };
        do
        :: atomic { !alive_worker_new -> alive_worker_new = true; held_worker_new = true; accepts_new = true }
        od
    } unless { !alive_new }
}

/* The service manager: where no control is alive, it starts one. */
active proctype Manager() {
    do
    :: atomic { !alive_old && !alive_new -> alive_new = true; locked_new = false; run New() }
    od
}

active proctype Killer() {
    do
    :: atomic { kills > 0 && alive_old -> kills--; alive_old = false; held_old = false; locked_old = false;
                killed_in_charge = killed_in_charge || !orderly; writes_old = false }
    :: atomic { kills > 0 && alive_new -> kills--; alive_new = false; held_new = false; locked_new = false;
                killed_in_charge = killed_in_charge || epoch_new > 0; writes_new = false;
                if :: nempty(down) -> offered = false :: empty(down) -> skip fi }
    :: atomic { kills > 0 && alive_worker -> kills--; alive_worker = false; held_worker = false; accepts = false }
    :: atomic { kills > 0 && alive_worker_new -> kills--; alive_worker_new = false; held_worker_new = false;
                accepts_new = false }
    :: true -> break
    od
}

/* Time goes on where nobody does anything: told to be fair, Spin overlooks a run in which nobody can go on. */
active proctype Time() { do :: tick = !tick od }

ltl never_reset { [] held }                                         /* one death, whosever */
ltl kept_by_control { [] (held || killed_in_charge) }               /* any number, but for who is in charge */
ltl one_in_charge { [] !(writes_old && writes_new) }
ltl writes_are_current { [] ((writes_old && !alive_new) -> epoch_old == epoch) }
ltl served_again { <>[] served }
ltl handover_ends { <>[] (alive_old != alive_new) }                 /* one control is left */
ltl led_again { <>[] (leads_old || leads_new) }
