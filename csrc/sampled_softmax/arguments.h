// The inputs of the sampled softmax by name, for the kernels of processors and of devices alike.
#pragma once

#include "alias_draw/alias_draw.h"
#include "arguments.h"
#include "sampled_softmax/logit.h"

namespace fastpop {

// What SampledSoftmax and SampledRows have in common. The names are the fields of Inputs in
// kernels/sampled_softmax/reference.py, without their shapes.
template <class Args>
void read_inputs(Arguments& given, Args& a) {
  a.query_BD = given.matrix("query");
  a.item_VD = given.matrix("item");
  a.B = given.get<int64_t>("B"), a.V = given.get<int64_t>("V"), a.D = given.get<int64_t>("D");
  a.K = given.get<int64_t>("num_negatives"), a.group_size = given.get<int64_t>("group_size");
  a.pos_id_B = given.at<int64_t>("pos_id");
  a.neg_id_GK = given.at<int64_t>("neg_id");
  a.table = given.at<AliasRow>("table");
  a.key_V = given.at<int64_t>("key");
  a.log_prior_V = given.at<float>("log_prior");
  a.log_proposal_V = given.at<float>("log_proposal");
  a.logq = given.choice<LogQ>("logq", {"none", "standard", "corrected"});
  a.drop_accidental_hits = given.get<bool>("drop_accidental_hits");
  a.exclude_diagonal = given.get<bool>("exclude_diagonal");
  a.lse_B = given.at<float>("lse");
  a.pos_logit_B = given.at<float>("pos_logit");
  a.d_lse_B = given.at<float>("d_lse");
  a.d_pos_B = given.at<float>("d_pos");
  a.d_query_BD = given.at<float>("d_query");
  given.leave({"round_items"});  // on the CPU a table of rounded rows is given instead
}

}  // namespace fastpop
